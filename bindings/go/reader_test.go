package esolm

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
)

// failing is an io.ReaderAt that fails, or panics.
type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) {
	if f.err == nil {
		panic("in ReadAt")
	}
	return 0, f.err
}

// What the options do is heard in the log, or of the progress.
func TestLockedAndPrefetched(t *testing.T) {
	defer SetLog(nil)
	opened := func(options ModelOptions) (log string, calls int) {
		var mutex sync.Mutex
		SetLog(func(_ Level, message string) {
			mutex.Lock()
			log += message + "\n"
			mutex.Unlock()
		})
		options.Progress = func(float64) error { calls++; return nil }
		model, err := Open(path, options)
		if err != nil {
			t.Fatal(err)
		}
		model.Close()
		mutex.Lock()
		defer mutex.Unlock()
		return
	}
	plain, calls := opened(ModelOptions{})
	locked, _ := opened(ModelOptions{Mlock: true})
	if strings.Contains(plain, "locked") || !strings.Contains(locked, "locked") {
		t.Errorf("%q %q", plain, locked)
	}
	if _, more := opened(ModelOptions{Prefetch: true}); more <= calls {
		t.Error(calls, more)
	}
}

func TestReaders(t *testing.T) {
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(file))
	model, err := OpenReader(bytes.NewReader(file), size, ModelOptions{Mlock: true, Prefetch: true})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := model.Info(); err != nil || info.FileBytes != uint64(size) {
		t.Errorf("%+v, %v", info, err)
	}
	if !model.Supports(FeatureHoles) || !model.Supports(FeatureLookahead) || model.Supports(Feature(99)) {
		t.Error("features")
	}
	model.Close()
	if model.Supports(FeatureHoles) {
		t.Error("a closed model")
	}
	for name, says := range map[string]string{"": "(reader): it ends", "the archive": "the archive: it ends"} {
		_, err = OpenReader(bytes.NewReader(file), size+1, ModelOptions{Name: name})
		has(t, StatusIO, err)
		if err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
	_, err = OpenReader(bytes.NewReader(file), size, ModelOptions{Name: "a\x00b"})
	has(t, StatusInvalidArgument, err)
	_, err = Open("no such file", ModelOptions{Name: "the archive"})
	has(t, StatusInvalidArgument, err)
	_, err = OpenReader(bytes.NewReader(file[:100]), 100, ModelOptions{})
	has(t, StatusBadFile, err)
	_, err = OpenReader(bytes.NewReader(file), -1, ModelOptions{})
	has(t, StatusInvalidArgument, err)
	own := errors.New("the archive is damaged")
	if _, err = OpenReader(failing{own}, size, ModelOptions{}); err != own {
		t.Errorf("%v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic is lost")
			}
		}()
		OpenReader(failing{}, size, ModelOptions{})
	}()
}

func TestOpenFile(t *testing.T) {
	whole, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	inside, err := os.CreateTemp(t.TempDir(), "archive")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	inside.WriteString("before it")
	size, err := io.Copy(inside, whole)
	if err != nil {
		t.Fatal(err)
	}
	inside.WriteString("behind it")
	for _, part := range []struct {
		file           *os.File
		offset, length int64
	}{{whole, 0, 0}, {inside, 9, size}} {
		model, err := OpenFile(part.file, part.offset, part.length, ModelOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if info, err := model.Info(); err != nil || info.FileBytes != uint64(size) {
			t.Errorf("%+v, %v", info, err)
		}
		model.Close()
	}
	_, err = OpenFile(inside, 9, size+100, ModelOptions{})
	has(t, StatusInvalidArgument, err)
	_, err = OpenFile(inside, -1, 0, ModelOptions{})
	has(t, StatusInvalidArgument, err)
}

func TestLogLevelAndSystemInfo(t *testing.T) {
	defer SetLog(nil)
	defer SetLogLevel(LevelInfo)
	var sent []int
	for _, level := range []Level{LevelWarn, LevelInfo, LevelDebug} {
		var messages []string
		SetLog(func(_ Level, message string) { messages = append(messages, message) })
		if err := SetLogLevel(level); err != nil {
			t.Fatal(err)
		}
		model, err := Open(path, ModelOptions{})
		if err != nil {
			t.Fatal(err)
		}
		model.Close()
		if len(messages) > 0 && !strings.Contains(messages[0], "mapped") {
			t.Errorf("%v: %v", level, messages)
		}
		sent = append(sent, len(messages))
	}
	if sent[0] != 0 || sent[1] != 1 || sent[2] < 2 {
		t.Error("messages by level:", sent)
	}
	has(t, StatusInvalidArgument, SetLogLevel(9))
	if line := SystemInfo(); !strings.Contains(line, Version()) || !strings.Contains(line, "kernels = ") {
		t.Error(line)
	}
}

// A Qwen2 whose file does not say its mask token is WeDLM once that is given.
func TestMaskToken(t *testing.T) {
	file, err := os.ReadFile("../../fuzz/seeds/gguf/llama-qwen2")
	if err != nil {
		t.Fatal(err)
	}
	mask := uint32(3)
	masked := ModelOptions{MaskToken: &mask}
	_, err = OpenBytes(file, masked)
	has(t, StatusInvalidArgument, err) // it says that it is autoregressive
	file = bytes.Replace(file, []byte("esolm.variant"), []byte("other.variant"), 1)
	for _, options := range []ModelOptions{{}, masked} {
		model, err := OpenBytes(file, options)
		if err != nil {
			t.Fatal(err)
		}
		info, err := model.Info()
		given := options.MaskToken != nil
		if err != nil || model.Supports(FeatureDiffusion) != given || (info.MaskToken == mask) != given {
			t.Error(options, info, err)
		}
		model.Close()
	}
}
