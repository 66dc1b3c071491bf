"""The heads that turn a backbone's feature maps into logits, one file each; see `heads.base`."""
