"""What a finished run is used for: detections on any images, AP Fixed, a bundle to publish."""
