"""Pure functions of arrays that methods, models and stages share; none has parameters to learn."""
