// Package esolm runs Esoteric Language Models, which write many tokens per step.
//
// It links libesolm.a, or libesolm.so with `-tags esolm_shared`. Install the library first (`make install`); it is found
// with pkg-config, so set PKG_CONFIG_PATH if the prefix is not a standard one. With `-tags esolm_prebuilt` it links what lies in
// prebuilt/GOOS_GOARCH of the package's folder.
//
// What is a context in the other languages is a Session here, as Go's contexts say when a call is to end.
//
// Any number of goroutines may use a Model at once. On a Session one call at a time computes; another one that overlaps with it
// fails with StatusBusy. What the last step left can be read at any time. Close frees the memory at once; otherwise the garbage collector does.
//
// esolm.h is the reference. These functions of it have no counterpart:
//
//   - esolm_generate: Generate calls esolm_step for each step.
//   - esolm_context_new_in and esolm_context_arena_size: memory of Go's heap may not be kept by C.
//   - esolm_model_retain: a *Model can be shared.
//   - esolm_tokenize, esolm_tokenize_template and esolm_tokenize_params_init: Tokenize and Template call the functions with
//     parameters, whose default is the zero value.
//   - esolm_cancel and esolm_cancel_reset: pass a context.Context and cancel that.
//   - esolm_abi_version: cgo compiles against the header of the library that it links.
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

// Status is a kind of error.
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

// Error is an error of the library. errors.Is compares errors by their status.
type Error struct {
	Status  Status
	Message string
}

func (e *Error) Error() string { return "esolm: " + e.Message }

// Is reports whether target is an Error with the same status.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Status == e.Status
}

var (
	// ErrBusy is returned by calls that compute on a Session that another one uses; compare it with errors.Is.
	ErrBusy = &Error{StatusBusy, "the context is in use by another call"}
	// ErrClosed is returned by calls on a Model or Session that has been closed.
	ErrClosed = errors.New("esolm: closed")
)

// call makes a C call and reads its error message, which is stored per thread: the goroutine must stay on its thread.
func call(f func() C.esolm_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if status := f(); status != C.ESOLM_OK {
		return &Error{Status(status), C.GoString(C.esolm_last_error())}
	}
	return nil
}

// Version returns the library's version, such as "0.1.0".
func Version() string { return C.GoString(C.esolm_version()) }

// DeviceKind is a kind of device.
type DeviceKind int32

// The kinds of devices.
const (
	DeviceCPU   DeviceKind = C.ESOLM_DEVICE_CPU
	DeviceGPU   DeviceKind = C.ESOLM_DEVICE_GPU
	DeviceOther DeviceKind = C.ESOLM_DEVICE_OTHER
)

// Device is a device that can run models.
type Device struct {
	Name, Description       string
	Kind                    DeviceKind
	MemoryFree, MemoryTotal uint64
}

// Devices lists the devices of this machine, including the CPU.
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

// first returns a pointer to a slice's first element, nil if it is empty.
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
