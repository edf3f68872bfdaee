package policy

// Permits is what a scope is good for.
var Permits = permits
