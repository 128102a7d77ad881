//! F3 text to checked values. No files, no environment: text and a lookup function come in.
