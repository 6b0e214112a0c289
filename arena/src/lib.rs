//! Memory that others may see: memfd arenas of equal slots and their records.
