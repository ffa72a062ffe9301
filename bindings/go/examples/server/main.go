// Command server is a minimal HTTP server: requests join a running context, and each gets its text as it is written.
//
//	server [-port 8080] [-sequences 16] [-queue 64] MODEL
//	curl http://127.0.0.1:8080/completion -d '{"prompt": "Once upon a time", "max_tokens": 40, "seed": 1, "stream": true}'
//
// It takes and gives JSON in the words of llama-server's /completion. One goroutine computes; a handler passes it a job by a
// channel and gets the parts of the text by another. It listens on this machine only and knows no passwords: it is not for
// networks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"esolm"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run serves until Ctrl-C or SIGTERM.
func run(arguments []string, out io.Writer) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	port := flags.Int("port", 8080, "0: any, which is printed")
	sequences := flags.Int("sequences", 16, "texts that are written at the same time")
	queue := flags.Int("queue", 64, "requests that wait for one to end")
	const usage = "usage: server [-port 8080] [-sequences 16] [-queue 64] MODEL"
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(arguments); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() != 1 || *sequences < 1 || *queue < 1 {
		return errors.New(usage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	model, err := esolm.Open(flags.Arg(0), esolm.ModelOptions{})
	if err != nil {
		return err
	}
	defer model.Close()
	e, err := newEngine(model, esolm.SessionOptions{Sequences: *sequences}, *queue)
	if err != nil {
		return err
	}
	defer e.context.Close()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler(model, e),
		MaxHeaderBytes:    4096,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Minute, // of the whole answer: who does not read it is let go
		IdleTimeout:       time.Minute,
	}
	go server.Serve(listener)
	fmt.Fprintf(out, "http://%s/completion\n", listener.Addr())

	e.run(ctx)
	// The handlers tell their clients that it is over.
	patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(patience); err != nil {
		return server.Close()
	}
	return nil
}
