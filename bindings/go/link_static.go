//go:build !esolm_shared && !esolm_prebuilt

package esolm

// #cgo pkg-config: esolm-static
import "C"
