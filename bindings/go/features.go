package esolm

/*
#include <esolm.h>
*/
import "C"

// Feature is something that some models, or some builds of the library, can do and others cannot. esolm.h explains them.
type Feature int32

// The features.
const (
	FeatureDiffusion      Feature = C.ESOLM_FEATURE_DIFFUSION
	FeatureSequential     Feature = C.ESOLM_FEATURE_SEQUENTIAL
	FeatureOrders         Feature = C.ESOLM_FEATURE_ORDERS
	FeatureAdaptive       Feature = C.ESOLM_FEATURE_ADAPTIVE
	FeatureHoles          Feature = C.ESOLM_FEATURE_HOLES
	FeatureExtend         Feature = C.ESOLM_FEATURE_EXTEND
	FeatureStates         Feature = C.ESOLM_FEATURE_STATES
	FeatureScoreOrder     Feature = C.ESOLM_FEATURE_SCORE_ORDER
	FeatureScoreDiffusion Feature = C.ESOLM_FEATURE_SCORE_DIFFUSION
	FeatureText           Feature = C.ESOLM_FEATURE_TEXT
	FeatureStepText       Feature = C.ESOLM_FEATURE_STEP_TEXT
	FeatureGrammar        Feature = C.ESOLM_FEATURE_GRAMMAR
	FeatureLookahead      Feature = C.ESOLM_FEATURE_LOOKAHEAD
	FeatureChat           Feature = C.ESOLM_FEATURE_CHAT
)

// Supports reports whether the model, in this build of the library, can do something; false after Close.
func (m *Model) Supports(feature Feature) bool {
	return m.is(func(model *C.esolm_model) C.int32_t { return C.esolm_model_supports(model, C.int32_t(feature)) })
}

// is asks the model a question; false after Close.
func (m *Model) is(ask func(*C.esolm_model) C.int32_t) bool {
	var answer C.int32_t
	err := m.with(func(model *C.esolm_model) C.esolm_status {
		answer = ask(model)
		return C.ESOLM_OK
	})
	return err == nil && answer != 0
}

// SystemInfo returns a line about the library and this machine, for reports of bugs: version, kernels, instruction sets,
// threads, ggml.
func SystemInfo() string { return C.GoString(C.esolm_system_info()) }
