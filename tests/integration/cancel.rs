//! Cancelling a generation.

use esolm::{Context, ContextParams, Error, Prompt, Variant};

use crate::reference::Network;
use crate::runs::{both_phases, finish, params, texts, tokens};

#[test]
fn cancelled_generation_continues_unchanged() {
    let model = Network::small(Variant::EsoB, 1).model();
    for batch_rows in [0, 5] {
        let mut context = Context::new(&model, &ContextParams { batch_rows, ..params(2) }).unwrap();
        let prompts = [Prompt::prefix(&[4, 5, 6]).unwrap(), Prompt::default()];
        let whole = texts(&mut context, &prompts, &both_phases(8));
        context.begin(&prompts, &both_phases(8)).unwrap();
        let token = context.cancel_token();
        loop {
            token.cancel();
            let (done, total) = context.progress();
            if done == total {
                assert!(context.step().unwrap().is_none(), "nothing is left to cancel");
                break;
            }
            for _ in 0..2 {
                assert!(matches!(context.step(), Err(Error::Cancelled)));
            }
            assert_eq!(context.progress().0, done);
            token.reset();
            context.step().unwrap().unwrap();
        }
        assert_eq!(tokens(&context), whole);
        token.reset();
        context.begin(&prompts, &both_phases(8)).unwrap();
        token.cancel();
        let refused = context.begin(&prompts, &both_phases(8));
        assert!(matches!(refused, Err(Error::Cancelled)), "a cancel before the beginning is not lost");
        assert!(matches!(context.step(), Err(Error::Cancelled)));
        token.reset();
        finish(&mut context);
    }
}
