"""The stage linear-probe: a linear classifier on the features of a pretrained model that is not trained."""
