"""Backbones and heads, which are pure functions of their variables.

A backbone is one file, in this package or anywhere else, with one subclass of
`wsss_jax.models.base.Backbone`. A recipe names it by its module: ``backbone=dict(name="tiny")``, or
``dict(name="my_project.my_vit", patch=14)``. The class states everything that the rest of the
program has to know about it (strides, parameter groups, names of published weights), so that a new
backbone changes no other file.
"""
