//! The mathematics: operators on CPU with a fixed order of summation.
