mod every_label;
mod fake_api;
mod following;
mod label_tables;
