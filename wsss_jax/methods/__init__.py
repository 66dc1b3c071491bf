"""The training methods, one file each; `methods.base` states their contract."""
