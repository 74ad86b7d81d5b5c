module klaw.invalid/bench/peers/go

go 1.22
