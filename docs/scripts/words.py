"""What the generated tables say about names that the code has no words for."""

BACKBONE = "data/weights/resnet50_msra-5891d200.pth"
"""Where `data fetch r50-fpn` puts the paper's backbone."""

BACKBONES = {
    "e3d007c6e8e0eda1787c7f280c8cfc621401a760b7f9f16fb19ce257d0b91b72": "mobilenet_v2_imagenet.pth",
}
"""SHA-256 of the first weights of published runs -> the name that `examples/` has for the file."""

LOGGED = {
    "class_factors": "factor S_i of eq. (10) of each class, by which CrS repeats unlabelled images",
    "copies": "mean occurrences of the unlabelled images with a class in one pass over D_u",
    "crest_boxes": "boxes that the teacher's inference pass picked for the generation",
    "crest_images": "unlabelled images that joined D_l in the generation",
    "crs_coverage": "part of D_u whose latest pseudo labels CrS has kept (the pool)",
    "crs_repeated": "part of D_u that comes up more than once in a pass",
    "gradient_ratio": "positive over negative gradients of each class, under its weight; 1 is balanced",
    "loss_alignment": "semantic alignment loss, as it is added",
    "weights": "weight w_i of each class, and of the background as the last one",
}
"""What a method logs, by the names that `logged.py` finds in its code."""

SCALARS = {
    "step, iter": "iterations done",
    "loss": "sum of all losses",
    "sup_loss_rpn_cls, sup_loss_rpn_bbox": "losses of the RPN on labelled images",
    "sup_loss_cls, sup_loss_bbox": "losses of the RoI head on labelled images",
    "sup_acc": "percentage of labelled RoIs that are classified right",
    "sup_acc_objectness, sup_acc_classes": "in its place with seesaw: background against objects, and classes",
    "unsup_loss_rpn_cls, unsup_loss_rpn_bbox": "losses of the RPN on pseudo labels, times λ_u",
    "unsup_loss_cls, unsup_loss_bbox": "losses of the RoI head on pseudo labels, times λ_u",
    "lr": "learning rate",
    "grad_norm": "norm of the gradients before clipping, where the detector clips them",
    "time, data_time": "seconds of an iteration, and of waiting for its images",
    "images_per_second": "images, labelled and unlabelled, of all processes",
    "memory_mib, memory": "peak memory in MiB: of the GPU, without one of the process; mmengine's own",
    "thresholds_GROUP": "mean threshold of pseudo labels over the classes of a group",
    "pseudo_precision_GROUP, pseudo_recall_GROUP": "of pseudo labels, where hidden labels are known",
    "NAME_GROUP": "mean over a group of what a method logs for each class",
    "GROUP/METRIC": "result of an evaluation, as a fraction",
}
"""What every run logs; upper case stands for the names of class groups, metrics and a method's own values."""
