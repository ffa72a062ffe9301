//! Tests of synthetic models. (`benches/peers` shares `synthetic.rs`.)

use std::fs::File;

use esolm::gguf::TensorType;
use esolm::quantize::{FileOrPath, QuantizeOptions};
use esolm::{Config, Error, Variant};

use super::synthetic::{Shape, create};

#[test]
fn last_write_of_a_model_is_not_lost_where_the_disk_is_full() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let small = Config {
        embedding_length: 32,
        feed_forward_length: 32,
        block_count: 1,
        vocab_size: 33,
        mask_token_id: 32,
        ..Shape::Stories.config(Variant::EsoB, 8)
    };
    // So few bytes are written when all of them are there, and so many before.
    for config in [small, Shape::Stories.config(Variant::EsoB, 8)] {
        let failed = create(&config, FileOrPath::File(&full), &QuantizeOptions::new(TensorType::F16));
        assert!(matches!(&failed, Err(Error::Io { .. })), "{failed:?}");
    }
}
