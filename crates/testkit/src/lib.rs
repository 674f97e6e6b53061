//! Contract suites, simulated clocks and entropy, the scripted model server.
