// What C calls of this package. On Windows cgo declares them again, to be exported, which has to be said the first time, too.
#ifndef ESOLM_GO_EXPORTED_H
#define ESOLM_GO_EXPORTED_H

#include <esolm.h>

#ifdef _WIN32
#define ESOLM_GO_EXPORTED __declspec(dllexport)
#else
#define ESOLM_GO_EXPORTED
#endif

ESOLM_GO_EXPORTED int32_t esolmGoProgress(double fraction, uintptr_t handle);
ESOLM_GO_EXPORTED int32_t esolmGoLogits(esolm_logits_row *row, float *logits, uintptr_t handle);
ESOLM_GO_EXPORTED void esolmGoLog(int32_t level, char *message, void *user_data);
ESOLM_GO_EXPORTED int64_t esolmGoRead(uint64_t offset, void *buffer, size_t size, uintptr_t handle);

#endif
