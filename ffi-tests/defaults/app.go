// Writes a text with the default parameters: app MODEL PROMPT.
package main

import (
	"context"
	"fmt"
	"os"

	"esolm"
)

func main() {
	text, err := write(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(text)
}

func write(path, prompt string) (string, error) {
	model, err := esolm.Open(path, esolm.ModelOptions{})
	if err != nil {
		return "", err
	}
	defer model.Close()
	c, err := esolm.NewSession(model, esolm.SessionOptions{})
	if err != nil {
		return "", err
	}
	defer c.Close()
	tokens, err := model.Tokenize(prompt)
	if err != nil {
		return "", err
	}
	prompts := []esolm.Prompt{{Tokens: tokens}}
	if err := c.Generate(context.Background(), prompts, esolm.DefaultParams()); err != nil {
		return "", err
	}
	return c.Text(0)
}
