"""Objects365 v2: its classes, its files' quirks, and the way COCO's classes map to its classes.

Names: `zhiyuan_objv2_train.json` of the official release, stripped; the spellings in `OTHER_SPELLINGS` are those that
later tools corrected. The map is that of the paper's authors (`ssod/datasets/coco_object365.py` of their release): bear
and teddy bear both become Bear, sports ball has no counterpart.
"""

from collections.abc import Sequence

from cissod_bench.coco.columns import Category
from cissod_bench.errors import UserError

# fmt: off
NAMES = (
    "Person", "Sneakers", "Chair", "Other Shoes", "Hat", "Car", "Lamp", "Glasses", "Bottle", "Desk", "Cup",
    "Street Lights", "Cabinet/shelf", "Handbag/Satchel", "Bracelet", "Plate", "Picture/Frame", "Helmet", "Book",
    "Gloves", "Storage box", "Boat", "Leather Shoes", "Flower", "Bench", "Potted Plant", "Bowl/Basin", "Flag",
    "Pillow", "Boots", "Vase", "Microphone", "Necklace", "Ring", "SUV", "Wine Glass", "Belt", "Moniter/TV",
    "Backpack", "Umbrella", "Traffic Light", "Speaker", "Watch", "Tie", "Trash bin Can", "Slippers", "Bicycle",
    "Stool", "Barrel/bucket", "Van", "Couch", "Sandals", "Bakset", "Drum", "Pen/Pencil", "Bus", "Wild Bird",
    "High Heels", "Motorcycle", "Guitar", "Carpet", "Cell Phone", "Bread", "Camera", "Canned", "Truck",
    "Traffic cone", "Cymbal", "Lifesaver", "Towel", "Stuffed Toy", "Candle", "Sailboat", "Laptop", "Awning", "Bed",
    "Faucet", "Tent", "Horse", "Mirror", "Power outlet", "Sink", "Apple", "Air Conditioner", "Knife",
    "Hockey Stick", "Paddle", "Pickup Truck", "Fork", "Traffic Sign", "Ballon", "Tripod", "Dog", "Spoon", "Clock",
    "Pot", "Cow", "Cake", "Dinning Table", "Sheep", "Hanger", "Blackboard/Whiteboard", "Napkin", "Other Fish",
    "Orange/Tangerine", "Toiletry", "Keyboard", "Tomato", "Lantern", "Machinery Vehicle", "Fan", "Green Vegetables",
    "Banana", "Baseball Glove", "Airplane", "Mouse", "Train", "Pumpkin", "Soccer", "Skiboard", "Luggage",
    "Nightstand", "Tea pot", "Telephone", "Trolley", "Head Phone", "Sports Car", "Stop Sign", "Dessert", "Scooter",
    "Stroller", "Crane", "Remote", "Refrigerator", "Oven", "Lemon", "Duck", "Baseball Bat", "Surveillance Camera",
    "Cat", "Jug", "Broccoli", "Piano", "Pizza", "Elephant", "Skateboard", "Surfboard", "Gun",
    "Skating and Skiing shoes", "Gas stove", "Donut", "Bow Tie", "Carrot", "Toilet", "Kite", "Strawberry",
    "Other Balls", "Shovel", "Pepper", "Computer Box", "Toilet Paper", "Cleaning Products", "Chopsticks",
    "Microwave", "Pigeon", "Baseball", "Cutting/chopping Board", "Coffee Table", "Side Table", "Scissors", "Marker",
    "Pie", "Ladder", "Snowboard", "Cookies", "Radiator", "Fire Hydrant", "Basketball", "Zebra", "Grape", "Giraffe",
    "Potato", "Sausage", "Tricycle", "Violin", "Egg", "Fire Extinguisher", "Candy", "Fire Truck", "Billards",
    "Converter", "Bathtub", "Wheelchair", "Golf Club", "Briefcase", "Cucumber", "Cigar/Cigarette", "Paint Brush",
    "Pear", "Heavy Truck", "Hamburger", "Extractor", "Extention Cord", "Tong", "Tennis Racket", "Folder",
    "American Football", "earphone", "Mask", "Kettle", "Tennis", "Ship", "Swing", "Coffee Machine", "Slide",
    "Carriage", "Onion", "Green beans", "Projector", "Frisbee", "Washing Machine/Drying Machine", "Chicken",
    "Printer", "Watermelon", "Saxophone", "Tissue", "Toothbrush", "Ice cream", "Hotair ballon", "Cello",
    "French Fries", "Scale", "Trophy", "Cabbage", "Hot dog", "Blender", "Peach", "Rice", "Wallet/Purse",
    "Volleyball", "Deer", "Goose", "Tape", "Tablet", "Cosmetics", "Trumpet", "Pineapple", "Golf Ball", "Ambulance",
    "Parking meter", "Mango", "Key", "Hurdle", "Fishing Rod", "Medal", "Flute", "Brush", "Penguin", "Megaphone",
    "Corn", "Lettuce", "Garlic", "Swan", "Helicopter", "Green Onion", "Sandwich", "Nuts", "Speed Limit Sign",
    "Induction Cooker", "Broom", "Trombone", "Plum", "Rickshaw", "Goldfish", "Kiwi fruit", "Router/modem",
    "Poker Card", "Toaster", "Shrimp", "Sushi", "Cheese", "Notepaper", "Cherry", "Pliers", "CD", "Pasta", "Hammer",
    "Cue", "Avocado", "Hamimelon", "Flask", "Mushroon", "Screwdriver", "Soap", "Recorder", "Bear", "Eggplant",
    "Board Eraser", "Coconut", "Tape Measur/ Ruler", "Pig", "Showerhead", "Globe", "Chips", "Steak",
    "Crosswalk Sign", "Stapler", "Campel", "Formula 1", "Pomegranate", "Dishwasher", "Crab", "Hoverboard",
    "Meat ball", "Rice Cooker", "Tuba", "Calculator", "Papaya", "Antelope", "Parrot", "Seal", "Buttefly",
    "Dumbbell", "Donkey", "Lion", "Urinal", "Dolphin", "Electric Drill", "Hair Dryer", "Egg tart", "Jellyfish",
    "Treadmill", "Lighter", "Grapefruit", "Game board", "Mop", "Radish", "Baozi", "Target", "French",
    "Spring Rolls", "Monkey", "Rabbit", "Pencil Case", "Yak", "Red Cabbage", "Binoculars", "Asparagus", "Barbell",
    "Scallop", "Noddles", "Comb", "Dumpling", "Oyster", "Table Teniis paddle", "Cosmetics Brush/Eyeliner Pencil",
    "Chainsaw", "Eraser", "Lobster", "Durian", "Okra", "Lipstick", "Cosmetics Mirror", "Curling", "Table Tennis",
)
"""Class names; the category id is the place counted from 1."""

OTHER_SPELLINGS = {
    38: ("Monitor/TV",), 53: ("Basket",), 91: ("Balloon",), 99: ("Dining Table",), 123: ("Teapot",),
    190: ("Billiards",), 203: ("Extension Cord",), 229: ("Hot air balloon", "Hot-air balloon",),
    290: ("Hami melon",), 292: ("Mushroom",), 300: ("Tape Measure/ Ruler", "Tape Measure/Ruler",), 308: ("Camel",),
    314: ("Meatball",), 322: ("Butterfly",), 355: ("Table Tennis paddle",),
}

FROM_COCO = {
    "person": 1, "bicycle": 47, "car": 6, "motorcycle": 59, "airplane": 115, "bus": 56, "train": 117, "truck": 66,
    "boat": 22, "traffic light": 41, "fire hydrant": 177, "stop sign": 128, "parking meter": 250, "bench": 25,
    "bird": 57, "cat": 140, "dog": 93, "horse": 79, "sheep": 100, "cow": 97, "elephant": 145, "bear": 296,
    "zebra": 179, "giraffe": 181, "backpack": 39, "umbrella": 40, "handbag": 14, "tie": 44, "suitcase": 121,
    "frisbee": 220, "skis": 120, "snowboard": 174, "kite": 155, "baseball bat": 138, "baseball glove": 114,
    "skateboard": 146, "surfboard": 147, "tennis racket": 205, "bottle": 9, "wine glass": 36, "cup": 11, "fork": 89,
    "knife": 85, "spoon": 94, "bowl": 27, "banana": 113, "apple": 83, "sandwich": 266, "orange": 105,
    "broccoli": 142, "carrot": 153, "hot dog": 235, "pizza": 144, "donut": 151, "cake": 98, "chair": 3, "couch": 51,
    "potted plant": 26, "bed": 76, "dining table": 99, "toilet": 154, "tv": 38, "laptop": 74, "mouse": 116,
    "remote": 133, "keyboard": 107, "cell phone": 62, "microwave": 164, "oven": 135, "toaster": 278, "sink": 82,
    "refrigerator": 134, "book": 19, "clock": 95, "vase": 31, "scissors": 170, "teddy bear": 296, "hair drier": 329,
    "toothbrush": 227,
}
"""Objects365 category id by COCO class name."""
# fmt: on

ABSENT_FILES = frozenset(
    (
        "patch16/objects365_v2_00908726.jpg",
        "patch6/objects365_v1_00320532.jpg",
        "patch6/objects365_v1_00320534.jpg",
    )
)
"""Images that the annotations list and the archives lack."""

_MANY = 0.9


def check_classes(categories: tuple[Category, ...], file: str) -> None:
    """Refuse what is not Objects365 v2, above all v1, which has the same classes under other ids.

    Names are compared after strip and case-fold; a tenth of them may differ, since copies correct the spelling.

    Raises:
        UserError: another data set or another version.
    """
    accepted = {
        number: {_fold(name), *map(_fold, OTHER_SPELLINGS.get(number, ()))} for number, name in enumerate(NAMES, 1)
    }
    right = sum(_fold(category.name) in accepted.get(category.id, ()) for category in categories)
    if len(categories) == len(NAMES) and right >= _MANY * len(NAMES):
        return
    known = set().union(*accepted.values())
    if sum(_fold(category.name) in known for category in categories) >= _MANY * len(NAMES):
        raise UserError(
            f"{file} has the classes of Objects365 under other ids than version 2 (only {right} of {len(NAMES)} "
            "agree): it looks like version 1. Use the annotations of Objects365 v2 (zhiyuan_objv2_train.json)."
        )
    raise UserError(
        f"{file} is not Objects365 v2: of its {len(categories)} classes {right} have the name and id of version 2."
    )


def _fold(name: str) -> str:
    return name.strip().casefold()


def unpacked_names(file_names: Sequence[str]) -> list[str]:
    """Where images lie in the unpacked archives: of `images/v1/patch8/x.jpg` the last two parts matter."""
    return ["/".join(name.rsplit("/", 2)[-2:]) for name in file_names]
