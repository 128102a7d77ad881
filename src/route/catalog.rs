//! The built-in catalogue of models: what `from_env` serves when there is no config file.
