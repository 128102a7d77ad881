//! F6 the shell.
