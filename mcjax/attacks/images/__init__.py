"""Adversarial images: PGD, APGD, and the losses and balls that they share."""
