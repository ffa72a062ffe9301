// A program outside of esolm's tree, which generates 16 tokens: app MODEL.
package main

import (
	"context"
	"fmt"
	"os"

	"esolm"
)

func main() {
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(path string) error {
	model, err := esolm.Open(path, esolm.ModelOptions{})
	if err != nil {
		return err
	}
	defer model.Close()
	c, err := esolm.NewSession(model, esolm.SessionOptions{Length: 16, Threads: 1})
	if err != nil {
		return err
	}
	defer c.Close()
	params := esolm.DefaultParams()
	params.Steps, params.Alpha0 = 4, 1
	if err := c.Generate(context.Background(), []esolm.Prompt{{}}, params); err != nil {
		return err
	}
	tokens, err := c.Tokens(0)
	if err == nil {
		fmt.Printf("esolm %s wrote %d tokens\n", esolm.Version(), len(tokens))
	}
	return err
}
