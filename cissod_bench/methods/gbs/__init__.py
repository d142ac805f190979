"""The proposed method: gradient-based reweighting, thresholding and class-rebalancing sampling."""
