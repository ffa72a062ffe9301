package esolm

/*
#include "exported.h"

static inline void forward(int32_t level, const char *message, void *user_data)
{
	esolmGoLog(level, (char *)message, user_data);
}

static inline void log_to_go(int on)
{
	esolm_set_log_callback(on ? forward : NULL, NULL);
}
*/
import "C"

import (
	"sync/atomic"
	"unsafe"
)

// Level is the severity of a message, from LevelError to LevelDebug.
type Level int32

// The levels.
const (
	LevelError Level = C.ESOLM_LOG_ERROR
	LevelWarn  Level = C.ESOLM_LOG_WARN
	LevelInfo  Level = C.ESOLM_LOG_INFO
	LevelDebug Level = C.ESOLM_LOG_DEBUG
)

var logger atomic.Pointer[func(Level, string)]

// SetLog has f called with the library's messages, from any goroutine and possibly several at once; nil turns them off. A panic of
// f ends there: it must not pass through C.
func SetLog(f func(level Level, message string)) {
	if f == nil {
		C.log_to_go(0)
		logger.Store(nil)
		return
	}
	logger.Store(&f)
	C.log_to_go(1)
}

// SetLogLevel has messages of this level and of more severe ones sent; LevelInfo at first.
func SetLogLevel(level Level) error {
	return call(func() C.esolm_status { return C.esolm_set_log_level(C.int32_t(level)) })
}

//export esolmGoLog
func esolmGoLog(level C.int32_t, message *C.char, _ unsafe.Pointer) {
	defer func() { _ = recover() }()
	if f := logger.Load(); f != nil {
		(*f)(Level(level), C.GoString(message))
	}
}
