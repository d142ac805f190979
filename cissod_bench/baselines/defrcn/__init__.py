"""DeFRCN: two stages, decoupled gradients, prototypical calibration."""
