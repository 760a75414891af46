//! Both drivers against each other over real sockets on loopback, in one process: real journals, real TLS, a disk that
//! can hold or fail a sync. What the cores decide is tested where they are; here it is what the drivers make of it.

mod intruders;
mod sides;
mod streams;
mod troubles;
