/* Scores texts, and says which one is most likely for the model: score MODEL TEXT.. */
#include "esolm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 1024 };

static void check(esolm_status status)
{
    if (status != ESOLM_OK) {
        fprintf(stderr, "%s\n", esolm_last_error());
        exit(EXIT_FAILURE);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: score MODEL TEXT..\n");
        return EXIT_FAILURE;
    }
    esolm_model *model = NULL;
    esolm_context *context = NULL;
    uint32_t tokens[MAX_TOKENS];
    int best = 2;
    double lowest = INFINITY;

    check(esolm_model_open(argv[1], NULL, &model));
    check(esolm_context_new(model, NULL, &context));
    for (int i = 2; i < argc; i++) {
        esolm_text_score score = {.struct_size = sizeof score};
        size_t n;
        check(esolm_tokenize(model, argv[i], strlen(argv[i]), tokens, MAX_TOKENS, &n));
        /* The default is to score left to right. A long text is cut into windows of the context's length. */
        check(esolm_score_text(context, tokens, n, NULL, NULL, 0, &score, NULL, NULL));
        double nats = score.nll / (double)score.scored_tokens;
        printf("%.2f nats per token, perplexity %.0f: %s\n", nats, exp(nats), argv[i]);
        if (nats < lowest) {
            lowest = nats;
            best = i;
        }
    }
    printf("most likely: %s\n", argv[best]);
    esolm_context_free(context);
    esolm_model_free(model);
    return EXIT_SUCCESS;
}
