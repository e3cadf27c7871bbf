//! What is made of the other parts of the contract, for systems that offer nothing better.

pub mod mutex;
