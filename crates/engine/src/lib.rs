//! The engine: answers questions in a process of its own, with DataFusion.
//!
//! It reads chunks by itself and asks the server for what is not in one yet
//! (`aquifer_query::wire`). It has no state that matters: it may be killed at
//! any time. It never decides what is visible or who may ask.
