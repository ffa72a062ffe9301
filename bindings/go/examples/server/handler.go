package main

import (
	"encoding/json"
	"errors"
	"net/http"

	"esolm"
)

const maxBody = 64 << 10

// request is the body of POST /completion. Fields that are left out are as in esolm.DefaultParams.
type request struct {
	Prompt      string   `json:"prompt"`
	MaxTokens   int      `json:"max_tokens"` // 0: until the end of the text, or of the context
	NPredict    int      `json:"n_predict"`  // llama-server's word for max_tokens, and -1 for no limit
	Seed        uint64   `json:"seed"`
	Steps       int      `json:"steps"` // of diffusion; 0: what the model's file says
	Temperature *float32 `json:"temperature"`
	Stop        []string `json:"stop"`
	Stream      bool     `json:"stream"` // answer with an event for each step that makes text
}

// completion is the answer; with Stream each event is one, and the last has Stop set.
type completion struct {
	Content         string `json:"content"`
	Stop            bool   `json:"stop"`
	StopType        string `json:"stop_type,omitempty"`
	TokensPredicted int    `json:"tokens_predicted"` // so far
	TokensEvaluated int    `json:"tokens_evaluated"` // of the prompt
	TokensCached    int    `json:"tokens_cached"`    // of these, computed before for another text
	Error           string `json:"error,omitempty"`  // why the text ends here
}

var stopTypes = map[esolm.StopReason]string{
	esolm.StopEndOfText: "eos",
	esolm.StopLength:    "limit",
	esolm.StopString:    "word",
}

func stopType(reason esolm.StopReason) string {
	if name, known := stopTypes[reason]; known {
		return name
	}
	return "none"
}

// refuse answers with an error, as llama-server does.
func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": message}})
}

// refuseFor answers with the library's error.
func refuseFor(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if errors.Is(err, &esolm.Error{Status: esolm.StatusInvalidArgument}) {
		code = http.StatusBadRequest
	}
	refuse(w, code, err.Error())
}

func handler(model *esolm.Model, e *engine) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/completion", func(w http.ResponseWriter, r *http.Request) {
		asked, ok := readRequest(w, r)
		if !ok {
			return
		}
		tokens, err := model.Tokenize(asked.Prompt)
		if err != nil {
			refuseFor(w, err)
			return
		}
		params := esolm.DefaultParams()
		params.MaxTokens, params.Seed, params.Steps, params.StopStrings = asked.MaxTokens, asked.Seed, asked.Steps, asked.Stop
		if asked.Temperature != nil {
			params.Temperature = *asked.Temperature
		}
		j := e.newJob(r.Context(), esolm.Prompt{Tokens: tokens}, params)
		if !e.submit(j) {
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusServiceUnavailable, "too many requests are waiting")
			return
		}
		first, ok := j.next(e)
		switch {
		case !ok:
			refuse(w, http.StatusServiceUnavailable, "the server ends")
			return
		case first.err != nil:
			refuseFor(w, first.err)
			return
		}
		state := completion{TokensEvaluated: len(tokens), TokensCached: first.cached}
		if asked.Stream {
			stream(w, e, j, state)
		} else {
			answer(w, e, j, state)
		}
	})
	return mux
}

func readRequest(w http.ResponseWriter, r *http.Request) (request, bool) {
	var asked request
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, "/completion takes POST")
		return asked, false
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&asked)
	if err == nil && decoder.More() {
		err = errors.New("there is something behind the JSON object")
	}
	var tooLong *http.MaxBytesError
	if asked.MaxTokens == 0 && asked.NPredict != -1 {
		asked.MaxTokens = asked.NPredict
	}
	switch {
	case errors.As(err, &tooLong):
		refuse(w, http.StatusRequestEntityTooLarge, err.Error())
	case err != nil:
		refuse(w, http.StatusBadRequest, err.Error())
	case asked.Temperature != nil && *asked.Temperature < 0:
		refuse(w, http.StatusBadRequest, "temperature is negative")
	default:
		return asked, true
	}
	return asked, false
}

// next waits for the next part. It returns false if none will come, as the client or the server is gone.
func (j *job) next(e *engine) (part, bool) {
	select {
	case p := <-j.parts:
		return p, true
	case <-j.ctx.Done():
	case <-e.done:
		select {
		case p := <-j.parts: // the last ones
			return p, true
		default:
		}
	}
	return part{}, false
}

// take adds a part. The answer's Content is then the part's text.
func (c *completion) take(p part) {
	c.Content = p.text
	c.TokensPredicted += p.tokens
	if c.Stop = p.last(); c.Stop {
		c.StopType = stopType(p.reason)
	}
	if p.err != nil {
		c.Error = p.err.Error()
	}
}

// answer sends the whole text at once.
func answer(w http.ResponseWriter, e *engine, j *job, state completion) {
	text := ""
	for !state.Stop {
		p, ok := j.next(e)
		if !ok {
			return
		}
		state.take(p)
		text += p.text
	}
	state.Content = text
	w.Header().Set("Content-Type", "application/json")
	if state.Error != "" {
		w.WriteHeader(http.StatusInternalServerError)
	}
	json.NewEncoder(w).Encode(state)
}

// stream sends server-sent events.
func stream(w http.ResponseWriter, e *engine, j *job, state completion) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	for !state.Stop {
		p, ok := j.next(e)
		if !ok {
			return
		}
		state.take(p)
		if p.text == "" && !state.Stop {
			continue
		}
		event, err := json.Marshal(state)
		if err != nil {
			return
		}
		if _, err := w.Write(append(append([]byte("data: "), event...), "\n\n"...)); err != nil {
			return
		}
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
	}
}
