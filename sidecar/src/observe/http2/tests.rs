mod bounds;
mod peers;
mod promises;
mod wire;
