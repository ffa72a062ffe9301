//go:build esolm_prebuilt && !esolm_shared

package esolm

// An archive of a release (esolm-VERSION-PLATFORM), unpacked as prebuilt/GOOS_GOARCH beside this file: a program for another
// platform takes that platform's library, without pkg-config.

// #cgo linux,amd64 CFLAGS: -I${SRCDIR}/prebuilt/linux_amd64/include
// #cgo linux,amd64 LDFLAGS: ${SRCDIR}/prebuilt/linux_amd64/lib/libesolm.a -lpthread -lm -ldl
// #cgo linux,arm64 CFLAGS: -I${SRCDIR}/prebuilt/linux_arm64/include
// #cgo linux,arm64 LDFLAGS: ${SRCDIR}/prebuilt/linux_arm64/lib/libesolm.a -lpthread -lm -ldl
// #cgo windows,amd64 CFLAGS: -I${SRCDIR}/prebuilt/windows_amd64/include
// #cgo windows,amd64 LDFLAGS: ${SRCDIR}/prebuilt/windows_amd64/lib/libesolm.dll.a
import "C"
