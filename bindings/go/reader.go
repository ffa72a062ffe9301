package esolm

/*
#include "exported.h"

static inline int64_t read_from_go(uint64_t offset, void *buffer, size_t size, void *user_data)
{
	return esolmGoRead(offset, buffer, size, (uintptr_t)user_data);
}

static inline void read_by(esolm_model_reader *reader, uintptr_t handle)
{
	reader->read = read_from_go;
	reader->user_data = (void *)handle;
}
*/
import "C"

import (
	"io"
	"os"
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// OpenReader opens a model of size bytes that file reads: an entry of an archive, an encrypted file, embedded bytes. It is read
// from its beginning to its end into memory of the library, before OpenReader returns. An error of file is returned as it is.
// (The field close of C is left out: a file is closed by who has opened it.)
func OpenReader(file io.ReaderAt, size int64, options ModelOptions) (*Model, error) {
	if size < 0 {
		return nil, &Error{StatusInvalidArgument, "the size is negative"}
	}
	var memory cMemory
	defer memory.free()
	name, err := memory.text("the name", options.Name)
	if err != nil {
		return nil, err
	}
	from := &reader{file: file}
	handle := cgo.NewHandle(from)
	defer handle.Delete()
	c := (*C.esolm_model_reader)(memory.take(1, C.sizeof_esolm_model_reader))
	c.struct_size, c.size, c.name = C.sizeof_esolm_model_reader, C.uint64_t(size), name
	C.read_by(c, C.uintptr_t(handle))
	model, err := open(options, func(params *C.esolm_model_params, out **C.esolm_model) C.esolm_status {
		return C.esolm_model_open_reader(c, params, out)
	})
	return model, from.result(err)
}

// OpenFile opens a model that is in an open file: length bytes from offset on, 0 being all up to its end. Unless they are copied,
// they are mapped; the file may be closed afterwards.
func OpenFile(file *os.File, offset, length int64, options ModelOptions) (*Model, error) {
	if offset < 0 || length < 0 {
		return nil, &Error{StatusInvalidArgument, "a negative offset or length"}
	}
	if err := options.checkName(); err != nil {
		return nil, err
	}
	fd := C.int32_t(file.Fd())
	defer runtime.KeepAlive(file)
	return open(options, func(params *C.esolm_model_params, out **C.esolm_model) C.esolm_status {
		return C.esolm_model_open_fd(fd, C.uint64_t(offset), C.uint64_t(length), params, out)
	})
}

// reader passes an io.ReaderAt to C.
type reader struct {
	outcome
	file io.ReaderAt
}

//export esolmGoRead
func esolmGoRead(offset C.uint64_t, buffer unsafe.Pointer, size C.size_t, handle C.uintptr_t) C.int64_t {
	from := cgo.Handle(handle).Value().(*reader)
	count := 0
	stop := from.run(func() (err error) {
		count, err = from.file.ReadAt(unsafe.Slice((*byte)(buffer), int(size)), int64(offset))
		if count > 0 || err == io.EOF {
			return nil // what is missing is asked for again; at the end of the file the library has a message
		}
		return err
	})
	if stop != 0 {
		return -1
	}
	return C.int64_t(count)
}
