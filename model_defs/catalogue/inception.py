"""The Inception family: GoogLeNet, BN-Inception, Inception v3 and v4, Inception-ResNet."""
