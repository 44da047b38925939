"""The operators, a folder for each family: public functions over ``operators`` over ``call``."""
