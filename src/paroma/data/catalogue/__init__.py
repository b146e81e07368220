"""What a data set holds, said without any record of it. Start at `data_set.DataSet`."""
