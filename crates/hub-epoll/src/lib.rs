//! Part of greenhub.
