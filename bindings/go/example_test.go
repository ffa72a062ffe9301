package esolm_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"esolm"
)

func modelPath() string {
	if path := os.Getenv("ESOLM_MODEL"); path != "" {
		return path
	}
	return "../../models/stories-q8_0.gguf"
}

// Continues a prompt.
func Example() {
	model, err := esolm.Open(modelPath(), esolm.ModelOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	c, err := esolm.NewSession(model, esolm.SessionOptions{Length: 64})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	tokens, err := model.Tokenize("Once upon a time")
	if err != nil {
		log.Fatal(err)
	}
	params := esolm.DefaultParams()
	params.Seed = 1
	err = c.Generate(context.Background(), []esolm.Prompt{{Tokens: tokens}}, params)
	if err != nil {
		log.Fatal(err)
	}
	text, err := c.Text(0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.HasPrefix(text, "Once upon a time"))
	// Output: true
}

// Fills a hole of 8 tokens in a text.
func ExampleModel_Template() {
	model, err := esolm.Open(modelPath(), esolm.ModelOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	c, err := esolm.NewSession(model, esolm.SessionOptions{Length: 64})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	prompt, length, err := model.Template("The king{{mask 8}} was happy.")
	if err != nil {
		log.Fatal(err)
	}
	params := esolm.DefaultParams()
	params.Length = length
	err = c.Generate(context.Background(), []esolm.Prompt{prompt}, params)
	if err != nil {
		log.Fatal(err)
	}
	text, err := c.Text(0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.HasPrefix(text, "The king"), strings.HasSuffix(text, " was happy."))
	// Output: true true
}
