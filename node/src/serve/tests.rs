//! What strangers, slow peers and many peers get.
