//go:build !esolm_shared

package esolm

// #cgo pkg-config: esolm-static
import "C"
