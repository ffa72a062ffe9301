// Package esolm runs Esoteric Language Models: text that is written many tokens at a time.
//
// It links libesolm.a, or libesolm.so with `-tags esolm_shared`; pkg-config must find them (`make install`, and
// PKG_CONFIG_PATH where the prefix is not a usual one).
//
// A Model may be used by any number of goroutines at once. A Context has one user at a time; a call that overlaps with
// another fails with StatusBusy. Close frees the memory at once; what is not closed is freed when the garbage
// collector finds it.
//
// esolm.h is the reference, and all of it is here but for what Go has no use for:
//
//   - esolm_generate: Generate calls esolm_step, which returns to Go between the steps.
//   - esolm_context_new_in and esolm_context_arena_size: memory that Go allocates is Go's to move and to collect.
//   - esolm_model_retain: a *Model may be kept in many places as it is.
//   - esolm_cancel and esolm_cancel_reset have no name of their own: a context.Context ends a call.
//   - esolm_abi_version: the library is linked with the program that was compiled for it.
package esolm

/*
#include <esolm.h>
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"runtime"
	"unsafe"
)

// Status says what kind of error occurred.
type Status int32

// The kinds of errors; esolm.h explains them.
const (
	StatusInvalidArgument Status = C.ESOLM_ERR_INVALID_ARGUMENT
	StatusIO              Status = C.ESOLM_ERR_IO
	StatusBadFile         Status = C.ESOLM_ERR_BAD_FILE
	StatusUnsupported     Status = C.ESOLM_ERR_UNSUPPORTED
	StatusDevice          Status = C.ESOLM_ERR_DEVICE
	StatusOutOfMemory     Status = C.ESOLM_ERR_OUT_OF_MEMORY
	StatusCancelled       Status = C.ESOLM_ERR_CANCELLED
	StatusBusy            Status = C.ESOLM_ERR_BUSY
	StatusBufferTooSmall  Status = C.ESOLM_ERR_BUFFER_TOO_SMALL
	StatusTokenizer       Status = C.ESOLM_ERR_TOKENIZER
	StatusNotFinite       Status = C.ESOLM_ERR_NOT_FINITE
	StatusInternal        Status = C.ESOLM_ERR_INTERNAL
)

func (s Status) String() string { return C.GoString(C.esolm_status_text(C.esolm_status(s))) }

// Error is an error of the library. errors.Is compares it with another by status.
type Error struct {
	Status  Status
	Message string
}

func (e *Error) Error() string { return "esolm: " + e.Message }

// Is tells whether target is an Error of the same status.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Status == e.Status
}

var (
	// ErrBusy is returned by calls on a Context that is in use; compare with errors.Is.
	ErrBusy = &Error{StatusBusy, "the context is in use by another call"}
	// ErrClosed is returned by calls on what has been closed.
	ErrClosed = errors.New("esolm: closed")
)

// call keeps the goroutine on its thread, because the message of an error is that of the thread.
func call(f func() C.esolm_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if status := f(); status != C.ESOLM_OK {
		return &Error{Status(status), C.GoString(C.esolm_last_error())}
	}
	return nil
}

// Version is that of the library, such as "0.1.0".
func Version() string { return C.GoString(C.esolm_version()) }

// DeviceKind says what a device is.
type DeviceKind int32

// The kinds of devices.
const (
	DeviceCPU   DeviceKind = C.ESOLM_DEVICE_CPU
	DeviceGPU   DeviceKind = C.ESOLM_DEVICE_GPU
	DeviceOther DeviceKind = C.ESOLM_DEVICE_OTHER
)

// Device is something that computes.
type Device struct {
	Name, Description       string
	Kind                    DeviceKind
	MemoryFree, MemoryTotal uint64
}

// Devices lists what this machine has, the CPU included.
func Devices() ([]Device, error) {
	var count C.size_t
	if err := call(func() C.esolm_status { return C.esolm_device_count(&count) }); err != nil {
		return nil, err
	}
	devices := make([]Device, 0, count)
	for i := C.size_t(0); i < count; i++ {
		info := C.esolm_device_info{struct_size: C.sizeof_esolm_device_info}
		if err := call(func() C.esolm_status { return C.esolm_device_info_get(i, &info) }); err != nil {
			return nil, err
		}
		devices = append(devices, Device{
			Name:        C.GoString(&info.name[0]),
			Description: C.GoString(&info.description[0]),
			Kind:        DeviceKind(info.kind),
			MemoryFree:  uint64(info.memory_free),
			MemoryTotal: uint64(info.memory_total),
		})
	}
	return devices, nil
}

// first is a slice's array, nil if it is empty.
func first[To, From any](slice []From) *To {
	if len(slice) == 0 {
		return nil
	}
	return (*To)(unsafe.Pointer(&slice[0]))
}

func boolean(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}
