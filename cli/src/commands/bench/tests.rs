//! Tests of synthetic models. (`benches/peers` shares `synthetic.rs`.)

use std::fs::File;

use esolm::gguf::Writer;
use esolm::{Error, TensorSpec};

use super::synthetic::write_random_weights;

#[test]
fn last_write_of_a_model_is_not_lost_where_the_disk_is_full() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    // So few bytes are written when all of them are there, and so many before.
    for rows in [1, 1 << 16] {
        let tensor = TensorSpec { name: "weights".into(), dims: vec![32, rows] };
        let failed = write_random_weights((&full, "a file"), Writer::new(), &[tensor]);
        assert!(matches!(&failed, Err(Error::Io { file, .. }) if file == "a file"), "{failed:?}");
    }
}
