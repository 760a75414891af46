//! Other side: intake, server, replica, depot intake.
