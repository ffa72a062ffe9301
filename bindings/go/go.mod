module esolm

go 1.19
