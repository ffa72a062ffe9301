/* A model at a path that is not ASCII and longer than Windows' 260 characters: long_path FILE. FILE has the path, in UTF-8: arguments are in
 * another encoding on Windows. */
#include "check.h"

int main(int argc, char **argv)
{
    char path[4096] = {0};
    esolm_model *model = NULL;
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!file)
        return 2;
    size_t length = fread(path, 1, sizeof path - 2, file), characters = 0, bytes = 0;
    fclose(file);
    while (length && (path[length - 1] == '\n' || path[length - 1] == '\r'))
        path[--length] = 0;
    for (size_t i = 0; i < length; i++) {
        characters += ((unsigned char)path[i] & 0xC0) != 0x80;
        bytes += (unsigned char)path[i] >= 0x80;
    }
    CHECK(characters > 260 && bytes > 0);
    STATUS(ESOLM_OK, esolm_model_open(path, NULL, &model));
    CHECK(model != NULL);
    esolm_model_free(model);
    /* The error names a file that is not there as it was given. */
    path[length++] = 'x';
    STATUS(ESOLM_ERR_IO, esolm_model_open(path, NULL, &model));
    CHECK(model == NULL);
    CHECK(strstr(esolm_last_error(), path) != NULL);
    return report();
}
