package esolm

/*
#include <esolm.h>
#include <stdlib.h>
*/
import "C"

import (
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// Model is an open model. Any number of goroutines may use it at once.
type Model struct {
	guard sync.RWMutex // so that Close waits for running calls
	c     *C.esolm_model
}

// ModelOptions are the parameters for opening a model; the zero value is the default.
type ModelOptions struct {
	Device   string   // "cpu", "cuda:0"; "" is the first GPU, or the CPU if there is none
	Copy     bool     // read the file into memory instead of mapping it
	Repack   bool     // quantized matrices that are plain in the file are read into memory in panels
	Progress Progress // called with the fraction of the file that is loaded, and may cancel; nil for none
	Mlock    bool     // lock the weights in main memory; if the system refuses, a warning in the log says why
	Prefetch bool     // read a mapped file's pages in now, and not when they are first used
	// The mask token of a Qwen2, Qwen3 or WeDLM whose file does not say it, which makes it WeDLM; nil is not given.
	MaskToken *uint32
	Name      string // what messages call the file of OpenReader; "" is "(reader)". Other files have names of their own
}

// Open opens a GGUF file.
func Open(path string, options ModelOptions) (*Model, error) {
	if err := options.checkName(); err != nil {
		return nil, err
	}
	name, err := cString("the path", path)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(name))
	return open(options, func(params *C.esolm_model_params, out **C.esolm_model) C.esolm_status {
		return C.esolm_model_open(name, params, out)
	})
}

// OpenBytes opens a model from the bytes of a GGUF file, which are copied.
func OpenBytes(file []byte, options ModelOptions) (*Model, error) {
	if err := options.checkName(); err != nil {
		return nil, err
	}
	if len(file) == 0 {
		return nil, &Error{StatusBadFile, "the file is empty"}
	}
	options.Copy = true
	return open(options, func(params *C.esolm_model_params, out **C.esolm_model) C.esolm_status {
		return C.esolm_model_open_memory(unsafe.Pointer(&file[0]), C.size_t(len(file)), params, out)
	})
}

func (options ModelOptions) c() (params *C.esolm_model_params, free func(), err error) {
	var device *C.char
	if options.Device != "" {
		if device, err = cString("the device", options.Device); err != nil {
			return nil, nil, err
		}
	}
	// In C memory, since a struct in Go memory may not be passed to C with a pointer to Go memory (the device's name).
	params = (*C.esolm_model_params)(C.calloc(1, C.sizeof_esolm_model_params))
	C.esolm_model_params_init(params, C.sizeof_esolm_model_params)
	switch {
	case options.Repack:
		params.mode = C.ESOLM_MODE_REPACK
	case options.Copy:
		params.mode = C.ESOLM_MODE_COPY
	default:
		params.mode = C.ESOLM_MODE_MAP
	}
	params.use_mlock = boolean(options.Mlock)
	params.prefetch = boolean(options.Prefetch)
	if options.MaskToken != nil {
		params.mask_token = C.uint32_t(*options.MaskToken)
		params.has_mask_token = 1
	}
	params.device = device
	return params, func() {
		C.free(unsafe.Pointer(params.device))
		C.free(unsafe.Pointer(params))
	}, nil
}

// checkName refuses a name for what is no reader.
func (options *ModelOptions) checkName() error {
	if options.Name != "" {
		return &Error{StatusInvalidArgument, "ModelOptions.Name is for OpenReader"}
	}
	return nil
}

func open(options ModelOptions, how func(*C.esolm_model_params, **C.esolm_model) C.esolm_status) (*Model, error) {
	params, free, err := options.c()
	if err != nil {
		return nil, err
	}
	defer free()
	watcher := &watcher{progress: options.Progress}
	handle, release := watcher.lend()
	defer release()
	watch(params, handle)
	model := &Model{}
	if err := watcher.result(call(func() C.esolm_status { return how(params, &model.c) })); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(model, (*Model).Close)
	return model, nil
}

// Close frees the model once no Session uses it. A second Close does nothing.
func (m *Model) Close() error {
	m.guard.Lock()
	defer m.guard.Unlock()
	runtime.SetFinalizer(m, nil)
	C.esolm_model_free(m.c)
	m.c = nil
	return nil
}

// with makes a call during which the model cannot be closed.
func (m *Model) with(f func(model *C.esolm_model) C.esolm_status) error {
	m.guard.RLock()
	defer m.guard.RUnlock()
	if m.c == nil {
		return ErrClosed
	}
	return call(func() C.esolm_status { return f(m.c) })
}

// ModelInfo holds a model's properties.
type ModelInfo struct {
	ContextLength, VocabSize int
	MaskToken                uint32
	EOSToken, BOSToken       *uint32 // that ends, and that begins a text; nil if there is none
	PrependedToken           *uint32 // that the library puts before each text by itself; nil if there is none
	Parameters               uint64
	TensorBytes, FileBytes   uint64
	LoadTime                 time.Duration
	Device                   string // that the weights are on, as in DeviceInfo.Name
}

// Info returns the model's properties.
func (m *Model) Info() (ModelInfo, error) {
	info := C.esolm_model_info{struct_size: C.sizeof_esolm_model_info}
	if err := m.with(func(c *C.esolm_model) C.esolm_status { return C.esolm_model_info_get(c, &info) }); err != nil {
		return ModelInfo{}, err
	}
	token := func(token C.uint32_t) *uint32 {
		if found := uint32(token); found != C.ESOLM_NO_TOKEN {
			return &found
		}
		return nil
	}
	return ModelInfo{
		ContextLength:  int(info.context_length),
		VocabSize:      int(info.vocab_size),
		MaskToken:      uint32(info.mask_token),
		EOSToken:       token(info.eos_token),
		BOSToken:       token(info.bos_token),
		PrependedToken: token(info.prepended_token),
		Parameters:     uint64(info.parameters),
		TensorBytes:    uint64(info.tensor_bytes),
		FileBytes:      uint64(info.file_bytes),
		LoadTime:       time.Duration(info.load_time_us) * time.Microsecond,
		Device:         C.GoString(&info.device[0]),
	}, nil
}

// TokenizeOptions say how a text becomes tokens; the zero value is the default.
type TokenizeOptions struct {
	ParseSpecial bool // special tokens written out in the text, and "[MASK]", are these tokens instead of characters
	Continues    bool // the text goes on from another: tokenizers that put a space before a text put none
}

func (options TokenizeOptions) c() *C.esolm_tokenize_params {
	return &C.esolm_tokenize_params{
		struct_size:   C.sizeof_esolm_tokenize_params,
		parse_special: boolean(options.ParseSpecial),
		continues:     boolean(options.Continues),
	}
}

// Tokenize converts text to tokens. Special tokens written out in it are characters as all others.
func (m *Model) Tokenize(text string) ([]uint32, error) {
	return m.TokenizeWith(text, TokenizeOptions{})
}

// TokenizeWith converts text to tokens, with options.
func (m *Model) TokenizeWith(text string, options TokenizeOptions) ([]uint32, error) {
	c, params := C.CString(text), options.c()
	defer C.free(unsafe.Pointer(c))
	return filled(func(tokens []uint32, n *C.size_t) error {
		return m.with(func(model *C.esolm_model) C.esolm_status {
			return C.esolm_tokenize_with_params(model, c, C.size_t(len(text)), params, first[C.uint32_t](tokens),
				C.size_t(len(tokens)), n)
		})
	}, len(text)/2+8)
}

// TokenBytes returns the bytes of one token, which may be a part of a UTF-8 character.
func (m *Model) TokenBytes(token uint32) ([]byte, error) {
	return filled(func(bytes []byte, n *C.size_t) error {
		return m.with(func(model *C.esolm_model) C.esolm_status {
			return C.esolm_token_bytes(model, C.uint32_t(token), first[C.uint8_t](bytes), C.size_t(len(bytes)), n)
		})
	}, 32)
}

// TokenIsEnd reports whether a token ends a text: EOSToken, or another, as a chat model has one for the end of an answer; false
// after Close.
func (m *Model) TokenIsEnd(token uint32) bool {
	return m.is(func(model *C.esolm_model) C.int32_t { return C.esolm_token_is_end(model, C.uint32_t(token)) })
}

// TokenIsSpecial reports whether a token stands for no text: special ones, such as those that begin and end a text, the mask, and
// numbers outside the vocabulary; false without a tokenizer, and after Close.
func (m *Model) TokenIsSpecial(token uint32) bool {
	return m.is(func(model *C.esolm_model) C.int32_t { return C.esolm_token_is_special(model, C.uint32_t(token)) })
}

// Metadata returns the value of a metadata key of the file, as text.
func (m *Model) Metadata(key string) (string, error) {
	name, err := cString("the key", key)
	if err != nil {
		return "", err
	}
	defer C.free(unsafe.Pointer(name))
	return m.text(128, func(model *C.esolm_model, text *C.char, capacity C.size_t, n *C.size_t) C.esolm_status {
		return C.esolm_model_metadata_get(model, name, text, capacity, n)
	})
}

// MetadataKeys returns the metadata keys of the file, in the file's order.
func (m *Model) MetadataKeys() ([]string, error) {
	var count C.size_t
	err := m.with(func(model *C.esolm_model) C.esolm_status { return C.esolm_model_metadata_count(model, &count) })
	keys := make([]string, count)
	for i := 0; i < len(keys) && err == nil; i++ {
		keys[i], err = m.text(64, func(model *C.esolm_model, text *C.char, capacity C.size_t, n *C.size_t) C.esolm_status {
			return C.esolm_model_metadata_key(model, C.size_t(i), text, capacity, n)
		})
	}
	return keys, err
}

// text returns the text that copy copies to a buffer, with a first guess of its size.
func (m *Model) text(size int, copy func(*C.esolm_model, *C.char, C.size_t, *C.size_t) C.esolm_status) (string, error) {
	text, err := filled(func(text []byte, n *C.size_t) error {
		err := m.with(func(model *C.esolm_model) C.esolm_status {
			return copy(model, first[C.char](text), C.size_t(len(text)), n)
		})
		return withNUL(err, n)
	}, size)
	return string(text), err
}

// Detokenize converts tokens to text.
func (m *Model) Detokenize(tokens []uint32) (string, error) {
	return m.text(4*len(tokens)+1, func(model *C.esolm_model, text *C.char, capacity C.size_t, n *C.size_t) C.esolm_status {
		return C.esolm_detokenize(model, first[C.uint32_t](tokens), C.size_t(len(tokens)), text, capacity, n)
	})
}

// filled calls fill with a buffer of a size, and again with a larger one if that is too small.
func filled[T any](fill func(buffer []T, n *C.size_t) error, size int) ([]T, error) {
	for {
		buffer := make([]T, size)
		var n C.size_t
		err := fill(buffer, &n)
		if err == nil {
			return buffer[:n], nil
		}
		if failure, ok := err.(*Error); !ok || failure.Status != StatusBufferTooSmall {
			return nil, err
		}
		size = int(n)
	}
}

// withNUL adds the terminating NUL to a length that a failed call asks for: C counts a text without it.
func withNUL(err error, n *C.size_t) error {
	if err != nil {
		*n++
	}
	return err
}
