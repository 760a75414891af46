//! Nodes as their clients see them: the start gate, fencing, promotion, loss and return of a peer. In this process, but
//! over real sockets and real files.

mod copies;
mod depot;
mod detached;
mod gate;
mod history;
mod pair;
mod promotion;
mod single;
mod support;
mod tls;
